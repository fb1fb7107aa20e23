//! Who gets how much, on real clusters: the example of the DRF paper, and who makes room for whom
mod script;

/// What every script may use.
const PRELUDE: &str = r#"
running() { meso-ps --state running -o tsv=role | grep -cx "$1" || true; }
holds() { [ "$(running "$1")" = "$2" ]; }
ended() { meso-ps -a --state killed -o tsv=reason | sort | uniq -c | tr -s ' '; }
"#;

/// Shows the example of the paper on a running cluster, whoever comes first: of 9 processors and 18 GB the one with tasks of 1 processor and 4 GB gets three, and the one with 3 processors and 1 GB two.
#[test]
fn the_example_of_the_paper() {
    script::on_a_cluster(
        &["--agents", "1", "-R", "cpus=9,mem=18G,disk=1G", "--revoke-after", "2s", "--revoke-notice", "100ms"],
        PRELUDE,
        r#"
meso-launch -q --role a -n 20 -R cpus=1,mem=4G --retries-lost 100 -- sleep 1000 > /dev/null 2>&1 & a=$!
soon holds a 4
meso-launch -q --role b -n 20 -R cpus=3,mem=1G --retries-lost 100 -- sleep 1000 > /dev/null 2>&1 & b=$!
both() { holds a 3 && holds b 2; }
soon both
check 'tasks of A and B' '3 2' "$(running a) $(running b)"
check 'shares' '0.667 0.667' "$(meso-ps roles -o jsonl | jq -r .share | xargs)"
# It stays so: nothing is left to claim for either.
sleep 6
check 'tasks later' '3 2' "$(running a) $(running b)"
check 'one had to make room' ' 1 revoked' "$(ended)"
kill $a $b; wait
"#,
    );
}

/// Shows that a role of higher priority is served to the end of its demand, and that with weights shares are as the weights.
#[test]
fn priority_and_weights() {
    script::on_a_cluster(
        &["--agents", "1", "-R", "cpus=6,mem=2G,disk=1G", "--revoke-after", "1s", "--revoke-notice", "0s"],
        PRELUDE,
        r#"
meso-role set heavy --weight 2
meso-launch -q --role heavy -n 9 -R cpus=1,mem=32M --retries-lost 100 -- sleep 1000 > /dev/null 2>&1 & one=$!
soon holds heavy 6
meso-launch -q --role light -n 9 -R cpus=1,mem=32M --retries-lost 100 -- sleep 1000 > /dev/null 2>&1 & two=$!
both() { holds heavy 4 && holds light 2; }
soon both
check 'two to one' '4 2' "$(running heavy) $(running light)"
check 'fair shares' '0.667 0.333' "$(meso-ps roles -o jsonl | jq -r .fair_share | xargs)"
meso-role set light --guarantee cpus=3
both() { holds heavy 3 && holds light 3; }
soon both
check 'a guarantee is more than a share' '3 3' "$(running heavy) $(running light)"
meso-role rm light
meso-role set urgent --priority 5
kill $one $two; wait
"#,
    );
}

/// Shows that a pipeline whose tasks have to make room reads it as a line with the tasks and a deadline, and that they end for that reason.
#[test]
fn the_notice_is_read() {
    script::on_a_cluster(
        &["--agents", "1", "-R", "cpus=2,mem=1G,disk=1G", "--revoke-after", "1s", "--revoke-notice", "3s"],
        PRELUDE,
        r#"
cat > scheduler <<'END'
while read -r line; do
  case $line in
    *'"offer/1"'*) [ -e full ] || { touch full; printf '%s\n' "$line" | jq -c '{meso: "accept/1", offers: [.id], ops: [{launch: [range(2) | {cmd: "sleep 1000", cpus: 1, mem: 32}]}]}'; } ;;
    *'"inverse/1"'*) printf '%s\n' "$line" >> inverse ;;
    *'"update/1"'*) printf '%s\n' "$line" | jq -r 'select(.final) | .reason' >> ends ;;
  esac
done
END
meso-offer --framework greedy -e all --exec 'bash scheduler' & head=$!
soon holds default 2
meso-launch -q --name small -R cpus=1,mem=32M -- true; check 'the other one ran' 0 $?
soon test -s inverse
check 'which, until when and why' '1 revoked true' "$(jq -r '"\(.tasks | length) \(.reason) \(.deadline_ms / 1000 - (now) < 10)"' inverse | head -1)"
soon test -s ends
check 'the reason' revoked "$(head -1 ends)"
kill $head; wait
"#,
    );
}
