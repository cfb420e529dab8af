// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build ignore

// Writes collectors/golang/layouts.cc: where the fields of Go's runtime are that the collector goruntime reads, by version
// and architecture. It builds an empty program with each toolchain and takes the offsets from its DWARF. scripts/go-layouts
// runs it.
package main

import (
	"bytes"
	"debug/dwarf"
	"debug/elf"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

var arches = []string{"amd64", "arm64"}

// A number of a layout: `name` is the member of GoLayout; the first of the paths that exists is taken, "none" if there is
// none of them and the number is optional.
type number struct {
	name     string
	optional bool
	kind     kind
	paths    []string // TYPE/FIELD.FIELD…
}

type kind int

const (
	offset kind = iota
	size
	length
)

var numbers = []number{
	{"g_status", false, offset, []string{"g/atomicstatus.value"}},
	{"g_wait_reason", false, offset, []string{"g/waitreason"}},
	{"sched_system", false, offset, []string{"schedt/ngsys.value", "schedt/ngsys"}},
	{"sched_free", false, offset, []string{"schedt/gFree.n", "schedt/gFree.stack.size"}},
	{"sched_free_more", true, offset, []string{"schedt/gFree.noStack.size"}},
	{"p_free", false, offset, []string{"p/gFree.n", "p/gFree.size"}},
	{"cycles", false, offset, []string{"mstats/numgc"}},
	{"pauses", false, offset, []string{"mstats/pause_ns"}},
	{"pause_ring", false, length, []string{"mstats/pause_ns"}},
	{"heap_stats", false, offset, []string{"mstats/heapStats.stats"}},
	{"heap_generation", false, offset, []string{"mstats/heapStats.gen.value"}},
	{"heap_delta", false, size, []string{"heapStatsDelta/"}},
	{"large_allocated", false, offset, []string{"heapStatsDelta/largeAlloc"}},
	{"large_freed", false, offset, []string{"heapStatsDelta/largeFree"}},
	{"small_allocated", false, offset, []string{"heapStatsDelta/smallAllocCount"}},
	{"small_freed", false, offset, []string{"heapStatsDelta/smallFreeCount"}},
	{"size_classes", false, length, []string{"heapStatsDelta/smallAllocCount"}},
	{"heap_marked", false, offset, []string{"gcControllerState/heapMarked"}},
	{"memory_limit", false, offset, []string{"gcControllerState/memoryLimit.value"}},
}

// The variable that holds the sizes of the size classes has another name since Go 1.25.
var sizesOf = []string{"runtime.class_to_size", "internal/runtime/gc.SizeClassToSize"}

func main() {
	log.SetFlags(0)
	log.SetPrefix("go-layouts: ")
	if len(os.Args) < 3 {
		log.Fatal("usage: go run go_layouts.go OUTPUT TOOLCHAIN... (go1.24.0 go1.24.13 ...)")
	}
	work, err := os.MkdirTemp("", "go-layouts")
	check(err)
	defer os.RemoveAll(work)
	write(filepath.Join(work, "go.mod"), "module empty\n\ngo 1.21\n")
	write(filepath.Join(work, "main.go"), "package main\n\nfunc main() {}\n")

	type row struct {
		version, members string
		from, arches     []string
	}
	var rows []*row
	place := map[string]*row{} // of a version on an architecture
	for _, toolchain := range os.Args[2:] {
		for _, arch := range arches {
			members := layout(work, toolchain, arch)
			version := strings.Join(strings.SplitN(toolchain, ".", 3)[:2], ".")
			known := place[version+arch]
			if known != nil && known.members != members {
				log.Fatalf("%s differs from %v on %s: the table needs patch releases\n%s\n%s", toolchain, known.from, arch, known.members, members)
			}
			for _, other := range rows {
				if known == nil && other.version == version && other.members == members {
					known = other
				}
			}
			if known == nil {
				known = &row{version: version, members: members}
				rows = append(rows, known)
			}
			place[version+arch] = known
			if !slices.Contains(known.from, toolchain) {
				known.from = append(known.from, toolchain)
			}
			if !slices.Contains(known.arches, arch) {
				known.arches = append(known.arches, arch)
			}
		}
	}
	var out bytes.Buffer
	out.WriteString("// SPDX-License-Identifier: MIT OR Apache-2.0\n// Written by scripts/go-layouts from the debugging information of programs built with these versions.\n" +
		"#include \"collectors/golang/layouts.h\"\n\nnamespace boxo::golang {\n\nnamespace {\n\nconstexpr GoLayout kLayouts[] = {\n")
	for _, r := range rows {
		fmt.Fprintf(&out, "    // %s\n    {.version = \"%s\",\n", strings.Join(r.from, ", "), r.version)
		for _, arch := range r.arches {
			fmt.Fprintf(&out, "     .%s = true,\n", arch)
		}
		fmt.Fprintf(&out, "%s},\n", r.members)
	}
	out.WriteString("};\n\n}  // namespace\n\nstd::span<const GoLayout> go_layouts() { return kLayouts; }\n\n}  // namespace boxo::golang\n")
	write(os.Args[1], out.String())
}

// layout returns the members of one GoLayout as C++ writes them.
func layout(work, toolchain, arch string) string {
	program := filepath.Join(work, "program")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = work
	build.Env = append(os.Environ(), "GOTOOLCHAIN="+toolchain, "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0", "GOFLAGS=", "GOEXPERIMENT=")
	if said, err := build.CombinedOutput(); err != nil {
		log.Fatalf("%s for %s: %v\n%s", toolchain, arch, err, said)
	}
	log.Printf("%s for %s", toolchain, arch)
	file, err := elf.Open(program)
	check(err)
	defer file.Close()
	data, err := file.DWARF()
	check(err)
	types := read(data)

	var out strings.Builder
	for _, n := range numbers {
		value, found := int64(-1), false
		for _, path := range n.paths {
			if value, found = types.number(path, n.kind); found {
				break
			}
		}
		if found {
			fmt.Fprintf(&out, "     .%s = %d,\n", n.name, value)
		} else if !n.optional {
			log.Fatalf("%s for %s: none of %v", toolchain, arch, n.paths)
		}
	}
	symbols, err := file.Symbols()
	check(err)
	for _, name := range sizesOf {
		for _, symbol := range symbols {
			if symbol.Name == name {
				fmt.Fprintf(&out, "     .size_of_class = \"%s\"", name)
				return out.String()
			}
		}
	}
	log.Fatalf("%s for %s: none of %v", toolchain, arch, sizesOf)
	return ""
}

// debugInfo holds the structs of the package runtime by their names.
type debugInfo map[string]dwarf.Type

func read(data *dwarf.Data) debugInfo {
	found := debugInfo{}
	for reader := data.Reader(); ; {
		entry, err := reader.Next()
		check(err)
		if entry == nil {
			return found
		}
		name, _ := entry.Val(dwarf.AttrName).(string)
		if entry.Tag == dwarf.TagStructType && strings.HasPrefix(name, "runtime.") {
			t, err := data.Type(entry.Offset)
			check(err)
			found[strings.TrimPrefix(name, "runtime.")] = t
		}
	}
}

func (types debugInfo) number(path string, what kind) (int64, bool) {
	name, fields, _ := strings.Cut(path, "/")
	t, ok := types[name]
	if !ok {
		return 0, false
	}
	at := int64(0)
	if fields != "" {
		for _, field := range strings.Split(fields, ".") {
			inner, ok := bare(t).(*dwarf.StructType)
			if !ok {
				return 0, false
			}
			if t = nil; inner != nil {
				for _, f := range inner.Field {
					if f.Name == field {
						t, at = f.Type, at+f.ByteOffset
					}
				}
			}
			if t == nil {
				return 0, false
			}
		}
	}
	switch what {
	case size:
		return t.Size(), true
	case length:
		array, ok := bare(t).(*dwarf.ArrayType)
		if !ok {
			return 0, false
		}
		return array.Count, true
	}
	return at, true
}

func bare(t dwarf.Type) dwarf.Type {
	for {
		named, ok := t.(*dwarf.TypedefType)
		if !ok {
			return t
		}
		t = named.Type
	}
}

func write(path, text string) { check(os.WriteFile(path, []byte(text), 0o644)) }

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
