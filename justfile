# List the recipes
default:
    @just --list

# Run the gateway
run *args:
    cargo run --release -- {{args}}

# All tests
test:
    tests/run

# The tests without those that take longer than a minute
quick:
    tests/run --quick

# Every fault in its long form, over each kind of Redis (half an hour); without a filter it writes docs/reliability.md
faults filter="":
    #!/usr/bin/env bash
    set -uo pipefail
    export TIDEGATE_FAULTS="$PWD/target/faults"
    rm -rf "$TIDEGATE_FAULTS"
    # One at a time: each has three gateways, up to six servers and a dozen clients of its own.
    cargo test --release --locked --test it -- redis::faults::{{filter}} --include-ignored --skip ::short_form --test-threads=1
    status=$?
    [ -n "{{filter}}" ] || python3 tools/reliability.py "$TIDEGATE_FAULTS" docs/reliability.md || status=1
    exit $status

# The Helm chart, with real tools (needs Go, and a built gateway or TIDEGATE_BIN)
chart *args:
    tests/chart/run {{args}}

# What deploy/ ships: proxies, Prometheus, dashboard (needs nginx, HAProxy, and what `just chart` needs)
deploy *args:
    tests/chart/tools.sh
    target/venv/bin/python -m pytest -q -p no:cacheprovider tests/deploy {{args}}

# Write docs/metrics.md, which is made of src/metrics.rs
metrics:
    WRITE_DOCS=1 cargo test --locked --lib the_document_says_what_the_metrics_are

# The image: deploy/Dockerfile built and run (needs root and Rust)
image *args:
    tests/image/run {{args}}

# The chart's whole life on a real Kubernetes with our image (needs root, Go, Rust; half an hour the first time, then five minutes)
cluster *args:
    tests/cluster/run {{args}}

# Formatting, clippy, the contract (needs PyYAML, jsonschema, openapi-spec-validator)
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    python3 tests/contract/check_openapi.py

# Measure against the floor and write docs/benchmarks.md: all, some suites by name, or `growth`; `--quick` for a look
bench *args:
    cargo build --release --workspace
    python3 tools/bench.py {{args}}

# Count the instructions of the steps that every message passes, and hold them to their ceilings (needs valgrind)
guard:
    cargo build --release --workspace
    tests/instructions.py target/release/tidegate-guard

# Load a gateway on ports of its own; arguments go to `tidegate bench`
load *args:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --release --workspace
    target/release/tidegate --set public.listen=127.0.0.1:8400 --set internal.listen=127.0.0.1:9400 --set log.level=warn &
    server=$!
    trap 'kill -INT $server; wait $server' EXIT
    curl --silent --fail --output /dev/null --retry 20 --retry-delay 1 --retry-connrefused http://127.0.0.1:9400/ready
    target/release/tidegate bench --url http://127.0.0.1:8400 --internal-url http://127.0.0.1:9400 --server-pid $server {{args}}

# Format the code
fmt:
    cargo fmt --all
