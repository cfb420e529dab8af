// SPDX-License-Identifier: MIT OR Apache-2.0

package boxoevents

import (
	"fmt"
	"math"
	"strings"
)

// builtinNamespaces are those whose names the contract fixes: the agent refuses any other name in them.
var builtinNamespaces = []string{"bitswap", "blockstore", "network", "resource", "agent"}

// What the agent takes of one line.
const (
	maxName = 128
	maxTags = 16
)

func finite(v float64) bool {
	return !math.IsNaN(v) && !math.IsInf(v, 0)
}

// checkName checks the first part of a custom metric's name.
func checkName(namespace string) error {
	for _, builtin := range builtinNamespaces {
		if namespace == builtin {
			return fmt.Errorf("boxoevents: %q is a built-in namespace", namespace)
		}
		if strings.HasPrefix(namespace, builtin+"_") { // its metrics could be taken for the agent's own
			return fmt.Errorf("boxoevents: %q begins as the built-in namespace %q does", namespace, builtin)
		}
	}
	return checkWord("name", namespace)
}

func checkWord(what, word string) error {
	for i, r := range word {
		letter := r == '_' || (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z')
		if !letter && (i == 0 || r < '0' || r > '9') {
			return fmt.Errorf("boxoevents: %s %q has characters other than letters, digits and _", what, word)
		}
	}
	if word == "" {
		return fmt.Errorf("boxoevents: a %s is empty", what)
	}
	return nil
}

func checkID(id *lineID, tags []string) error {
	parts := strings.Split(id.name, ".")
	if err := checkName(parts[0]); err != nil {
		return err
	}
	if len(parts) < 2 {
		return fmt.Errorf("boxoevents: custom metric %q has no namespace (want namespace.name)", id.name)
	}
	for _, part := range parts[1:] {
		if part == "" {
			return fmt.Errorf("boxoevents: custom metric %q has an empty part", id.name)
		}
		if err := checkWord("name", "_"+part); err != nil { // a digit may come first here
			return err
		}
	}
	for _, tag := range tags {
		key, _, _ := strings.Cut(tag, ":")
		if err := checkWord("tag", key); err != nil {
			return err
		}
		if strings.HasPrefix(key, "__") || (key == "le" && (id.kind == "ms" || id.kind == "h")) {
			return fmt.Errorf("boxoevents: tag %q is reserved", key)
		}
	}
	if len(id.name) > maxName || len(tags) > maxTags || len(id.name)+len(id.tags) > maxLineID {
		return fmt.Errorf("boxoevents: name and tags of %q are too long", id.name)
	}
	return nil
}

// shortName is the event's name without its namespace, told apart by the values of its tags.
func shortName(id *lineID) string {
	_, name, _ := strings.Cut(id.name, ".")
	for tag := range strings.SplitSeq(strings.TrimPrefix(id.tags, "|#"), ",") {
		if _, value, ok := strings.Cut(tag, ":"); ok {
			name += "_" + value
		}
	}
	return name
}
