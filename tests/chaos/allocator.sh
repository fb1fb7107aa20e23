#!/bin/sh
# A policy for meso-master --allocate that is well for a while, or ill in one of several ways, by lot at each start
case $(($(od -An -N1 -tu1 /dev/urandom) % 6)) in
0) exit 3 ;;
1) exec sleep 1000 ;;
2) exec yes '{"meso":"grant/1","framework":' ;;
3) exec head -c 100000000 /dev/zero ;;
4)
    # More than anybody has, to everybody, of an agent that is there and of one that is not.
    exec jq -c --unbuffered '. as $all
        | (.frameworks[] | {meso: "grant/1", framework, role, agent: ($all.agents[0].agent // "agent_0000000000", "agent_0000000000"), cpus: 100000, mem: 100000000, tasks: 100000}),
          {meso: "allocated/1"}'
    ;;
*) exec timeout 5 meso-allocate ;;
esac
