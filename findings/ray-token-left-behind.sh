#!/usr/bin/env bash
# One would guess: a cluster that `ray.init()` starts on one machine leaves nothing behind when it ends; and whoever can
# start a head with `ray start --head` can let a worker join it with `ray start --address` from the same account.
# Instead: ray.init() writes ~/.ray/auth_token. A head that is started later finds it there and wants it from all who
# come; `ray start --address`, of the same user in the same home, does not send it, and the worker cannot join.
# Why it matters: a script that used Ray on the head's machine once, `box2mask run --ray local` too, changes how the next
# cluster there is joined. Set RAY_AUTH_MODE on all nodes alike: to `token`, with the same token, or to `disabled`.
# Seen with: ray 2.60.0.
set -euo pipefail
work=$(mktemp -d /tmp/ray-XXXX)
head=
trap 'test -z "$head" || kill -KILL -- "-$head" 2>/dev/null || true; rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet ray==2.60.0
export HOME=$work/home RAY_USAGE_STATS_ENABLED=0
unset RAY_AUTH_MODE RAY_AUTH_TOKEN RAY_AUTH_TOKEN_PATH
mkdir "$HOME"

free() { "$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# A head and a worker that would join it; says whether it did.
joins() {
    local port log=$work/head-$1.log
    port=$(free)
    setsid "$work/venv/bin/ray" start --head --block --port "$port" --num-cpus 1 --include-dashboard=false \
        --dashboard-agent-listen-port "$(free)" --temp-dir "$work/$1" >"$log" 2>&1 &
    head=$!
    until grep -q "Ray runtime started" "$log"; do
        kill -0 "$head" || { cat "$log" >&2; echo "the head did not start"; return; }
        sleep 0.5
    done
    : >"$work/worker-$1.log"
    setsid timeout --kill-after=5 90 "$work/venv/bin/ray" start --address "127.0.0.1:$port" --block --num-cpus 1 \
        --dashboard-agent-listen-port "$(free)" >"$work/worker-$1.log" 2>&1 &
    local worker=$! said=refused
    for _ in $(seq 180); do
        if grep -q "Ray runtime started" "$work/worker-$1.log"; then said=joined; break; fi
        kill -0 "$worker" 2>/dev/null || break
        sleep 0.5
    done
    kill -KILL -- "-$worker" "-$head" 2>/dev/null || true
    wait "$worker" "$head" 2>/dev/null || true
    head=
    echo "$said"
}

before=$(joins a)
"$work/venv/bin/python" -W ignore - >/dev/null 2>&1 <<'PY'
import ray

ray.init("local", include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
ray.shutdown()
PY
left=$(cd "$HOME" && find . -type f | sort | tr '\n' ' ')
after=$(joins b)
echo "$("$work/venv/bin/ray" --version)"
echo "before ray.init(): a worker $before. In the home after it: $left"
echo "after ray.init(): a worker $after; it says: $(grep -iE 'auth|token|Unauthenticated' "$work/worker-b.log" | head -n 1 | cut -c1-160)"
if [ "$before" != joined ] || [ "$after" != refused ] || [[ $left != *auth_token* ]]; then
    echo "no longer so: nothing is left, or the worker joins" >&2
    exit 1
fi
echo "as stated: a token is left behind, and a worker can no longer join a head that finds it"
