# Offers in; for each agent's first offer, the same with a task: jq -nc --unbuffered -f census.jq
foreach (inputs | select(.meso == "offer/1")) as $offer (
    { seen: {} };
    .new = (.seen[$offer.agent] | not) | .seen[$offer.agent] = true;
    if .new then
        $offer + { tasks: [{ name: ("census-" + $offer.host), cpus: 0.1, mem: 32, cmd: "echo $MESO_HOST; uname -m" }] }
    else empty end
)
