// SPDX-License-Identifier: MIT OR Apache-2.0

// Manifest decodes Kubernetes manifests strictly against the API's own types: an unknown field, a field given twice or
// an unknown kind is an error. It prints what it decoded as JSON, one object a line.
//
//	go run . FILE...
//	go run . -seccomp CAPABILITY,...    the runtime's default system call filter for a container with these
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
)

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{core.AddToScheme, apps.AddToScheme, monitoring.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return scheme, nil
}

// decode calls found for every object of a file with one or more YAML documents.
func decode(data []byte, found func(runtime.Object) error) error {
	scheme, err := newScheme()
	if err != nil {
		return err
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for n := 1; ; n++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("document %d: %w", n, err)
		}
		if isEmpty(document) {
			continue
		}
		object, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			return fmt.Errorf("document %d: %w", n, err)
		}
		if err := found(object); err != nil {
			return err
		}
	}
}

// isEmpty tells a document that holds comments only.
func isEmpty(document []byte) bool {
	for _, line := range bytes.Split(document, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && !bytes.Equal(line, []byte("---")) {
			return false
		}
	}
	return true
}

// filter is what Docker gives to a container with these capabilities.
func filter(capabilities []string) (*specs.LinuxSeccomp, error) {
	for i, name := range capabilities {
		capabilities[i] = "CAP_" + name
	}
	return seccomp.GetDefaultProfile(&specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: capabilities}},
		Linux:   &specs.Linux{},
	})
}

func main() {
	out := json.NewEncoder(os.Stdout)
	if len(os.Args) == 3 && os.Args[1] == "-seccomp" {
		profile, err := filter(strings.FieldsFunc(os.Args[2], func(r rune) bool { return r == ',' }))
		if err == nil {
			err = out.Encode(profile)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	for _, path := range os.Args[1:] {
		data, err := os.ReadFile(path)
		if err == nil {
			err = decode(data, func(object runtime.Object) error { return out.Encode(object) })
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", path, err)
			os.Exit(1)
		}
	}
}
