// SPDX-License-Identifier: MIT OR Apache-2.0

package plugin

import (
	"github.com/boxo-agent/boxo-agent/clients/go/boxoevents"
	"github.com/boxo-agent/boxo-agent/clients/go/instrument"
	"github.com/ipfs/kubo/repo"
)

// wrapRepo reports the blocks that are read from and written to the repository's datastore. It is always one of
// go-ds-measure, which has the optional methods that the wrapper has.
func wrapRepo(monitor *boxoevents.PerformanceMonitor, r repo.Repo) repo.Repo {
	return &wrappedRepo{r, instrument.WrapDatastore(monitor, r.Datastore())}
}

type wrappedRepo struct {
	repo.Repo
	data repo.Datastore
}

func (r *wrappedRepo) Datastore() repo.Datastore { return r.data }
