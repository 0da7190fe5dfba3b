#!/bin/sh
# Writes everything generated in crds/ and helm/nebula-crds again: the Rust types of the Gateway API, crds/generated and the
# chart's copies. Needs `go` (downloads the release's module) and kopium 0.24.1 (`cargo install kopium@0.24.1 --locked`),
# which may be named with KOPIUM=/path/to/kopium. Run it after a change of RELEASE or of a kind of ours; commit what changes.
set -eu
cd "$(dirname "$0")/.."
release=$(sed -n 's/^pub const RELEASE: &str = "\(.*\)";$/\1/p' crds/src/bin/crdgen/gateway_api.rs)
module=$(mktemp -d)
trap 'rm -rf "$module"' EXIT
upstream=$(cd "$module" && go mod init generate >/dev/null 2>&1 &&
    go mod download -json "sigs.k8s.io/gateway-api@$release" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')
exec cargo run --quiet -p crds --bin crdgen -- --gateway-api "$upstream" --kopium "${KOPIUM:-kopium}"
