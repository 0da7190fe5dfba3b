// Package conformance compiles the official Gateway API suite into one test binary that is driven only by flags and
// KUBECONFIG; `cargo xtask conformance` builds and runs it.
package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

// TestConformance runs the suite with the options of its flags (conformance/utils/flags).
func TestConformance(t *testing.T) {
	conformance.RunConformance(t)
}
