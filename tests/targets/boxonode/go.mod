module boxo-agent.test/boxonode

go 1.25.7

require github.com/ipfs/boxo v0.42.1
