// SPDX-License-Identifier: MIT OR Apache-2.0

// boxonode is the smallest program that is built with boxo: it says READY and waits for its standard input to end.
package main

import (
	"fmt"
	"io"
	"os"

	_ "github.com/ipfs/boxo/routing/http/types/iter" // the one package of boxo that needs nothing else
)

func main() {
	fmt.Println("READY")
	_, _ = io.Copy(io.Discard, os.Stdin)
}
