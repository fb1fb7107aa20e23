# Strict ranks: the frameworks in the order of their roles' names, each to the end of its demand

# Thousandths, in which all amounts are whole.
def exact: (. // 0) * 1000 | round;

def kinds: "cpus", "mem", "disk", "gpus";

# How many tasks of a demand an agent has room for, and what is left of it then.
def room($demand; $most): .free as $free
  | [$most, (kinds | select($demand[.] | exact > 0) | ($free[.] | exact) / ($demand[.] | exact) | floor)] | min;
def without($demand; $tasks): reduce kinds as $kind (.;
  .free[$kind] = ((.free[$kind] | exact) - $tasks * ($demand[$kind] | exact)) / 1000);

def grant($framework; $at; $tasks):
  .grants += [{meso: "grant/1", framework: $framework.framework, agent: .agents[$at].agent, tasks: $tasks}];

reduce (.frameworks | sort_by(.role)[] | select(.suppressed != true)) as $framework
  ({agents: [.agents[] | select(.active != false)], grants: []};
   .left = ($framework.demand.count // 1)
   | reduce range(.agents | length) as $at (.;
     .agents[$at] as $agent
     | if .left == 0 or ($framework.refused // [] | any(.agent == $agent.agent)) then .
       elif $framework.demand then
         .left as $left | ($agent | room($framework.demand; $left)) as $tasks
         | if $tasks == 0 then . else
             grant($framework; $at; $tasks) | .agents[$at] |= without($framework.demand; $tasks) | .left -= $tasks
           end
       elif $agent.free.cpus | exact == 0 then .
       # Whoever says nothing of its tasks is given all that is left of an agent.
       else grant($framework; $at; 0) | .agents[$at].free = {} | .left = 0 end))
| .grants[], {meso: "allocated/1", policy: "ranks"}
