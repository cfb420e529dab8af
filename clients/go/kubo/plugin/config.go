// SPDX-License-Identifier: MIT OR Apache-2.0

package plugin

import (
	"fmt"
	"time"
)

// config is the plugin's part of kubo's configuration.
type config struct {
	socket      string        // empty: as boxoevents says
	interval    time.Duration // 0: as boxoevents says
	countBlocks time.Duration // 0: not at all
}

// readConfig refuses what it does not know, so that a typing mistake is seen.
func readConfig(raw any) (config, error) {
	c := config{countBlocks: 30 * time.Second}
	if raw == nil {
		return c, nil
	}
	values, ok := raw.(map[string]any)
	if !ok {
		return c, fmt.Errorf("Config is a %T, want an object", raw)
	}
	for key, value := range values {
		text, ok := value.(string)
		if !ok {
			return c, fmt.Errorf("Config.%s is a %T, want a string", key, value)
		}
		var err error
		switch key {
		case "Socket":
			c.socket = text
		case "Interval":
			c.interval, err = readDuration(text)
		case "CountBlocks":
			if c.countBlocks = 0; text != "off" {
				c.countBlocks, err = readDuration(text)
			}
		default:
			err = fmt.Errorf("want Socket, Interval or CountBlocks")
		}
		if err != nil {
			return c, fmt.Errorf("Config.%s: %w", key, err)
		}
	}
	return c, nil
}

func readDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err == nil && d < 10*time.Millisecond {
		err = fmt.Errorf("%q is too short", text)
	}
	return d, err
}
