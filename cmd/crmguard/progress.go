package main

import (
	"fmt"
	"io"
	"time"
)

// teller tells how far a command has come: in one line that changes on a terminal, and
// in a few lines elsewhere.
type teller struct {
	out      io.Writer
	terminal bool
	told     time.Time
	line     string // the part that is the same while one step goes on
}

func (c *call) teller() *teller { return &teller{out: c.err, terminal: isTerminal(c.err)} }

// linesEvery is how often a log gets a line about a step that goes on.
const linesEvery = 30 * time.Second

func (t *teller) tell(step, detail string) {
	every := linesEvery
	if t.terminal {
		every = progressEvery
	}
	if step == t.line && time.Since(t.told) < every {
		return
	}
	t.line, t.told = step, time.Now()
	text := step
	if detail != "" {
		text += ": " + detail
	}
	if t.terminal {
		fmt.Fprintf(t.out, "\r%s%s", clearLine, text)
		return
	}
	fmt.Fprintln(t.out, text)
}

// later has nothing told about a step that is over soon.
func (t *teller) later(step string) { t.line, t.told = step, time.Now() }

func (t *teller) end() {
	if t.terminal {
		fmt.Fprint(t.out, "\r"+clearLine)
	}
}
