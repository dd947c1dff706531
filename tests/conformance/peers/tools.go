//go:build tools

// Package tools pins the commands of other projects that the tests run as they are.
package tools

import (
	_ "github.com/transparency-dev/tessera/cmd/examples/posix-oneshot"
	_ "github.com/transparency-dev/tessera/cmd/fsck"
	_ "github.com/transparency-dev/witness/cmd/omniwitness"
)
