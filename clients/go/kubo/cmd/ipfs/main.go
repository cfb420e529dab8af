// SPDX-License-Identifier: MIT OR Apache-2.0

// Command ipfs is kubo with boxo-agent's events built in. It is used as kubo is.
package main

import (
	"os"

	"github.com/boxo-agent/boxo-agent/clients/go/kubo/plugin"
	"github.com/ipfs/kubo/cmd/ipfs/kubo"
	"github.com/ipfs/kubo/plugin/loader"
)

func main() {
	os.Exit(kubo.Start(kubo.BuildEnv(func(l *loader.PluginLoader) error {
		return l.Load(plugin.New())
	})))
}
