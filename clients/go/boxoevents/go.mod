module github.com/boxo-agent/boxo-agent/clients/go/boxoevents

go 1.24
