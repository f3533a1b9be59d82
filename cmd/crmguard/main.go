// Command crmguard makes, counts, turns and destroys keys, verifies, proves and shows
// journals, checks policies and finds what is not sealed, beside the CRM that it protects: on the same machine, or on one of an auditor.
//
//	crmguard keys create FILE [-passphrase PASSFILE|-] [-data DIR]
//	crmguard keys create FILE -signer NAME [-data DIR]
//	crmguard keys list -store PATH|postgres://…
//	crmguard keys rotate -kek FILE
//	crmguard keys rotate -kek FILE -store … -tenant T [-client C | -kind K -field F [-index NAME]]
//	crmguard keys turn -store … -kek FILE
//	crmguard keys erase -store … -kek FILE -db …|-no-index -tenant T -client C [-yes] [-o FILE]
//	crmguard keys erase -store … -kek FILE -db …|-no-index -finish [-o FILE]
//	crmguard keys receipt -store … -kek FILE FILE… | -tenant T -client C
//	crmguard keys replay FILE… -store … -kek FILE -db …|-no-index [-o FILE]
//	crmguard audit verify -db PATH|FOLDER|postgres://… -key FILE.pub [-anchor FILE|DATABASE] [-checkpoint FILE [-resume]] [-save FILE]
//	crmguard audit prove -db … -key FILE.pub [-o FILE] ENTRY
//	crmguard audit check -key FILE.pub FILE…
//	crmguard audit timeline -db … -tenant T [-person ID] [-record KIND/ID] [-client ID]
//	crmguard audit tail -db … -key FILE.pub -tenant T
//	crmguard audit export -db … -key FILE.pub [-tenant T] [-after N] [-format jsonl|ocsf|csv] [-o FILE | -syslog HOST:PORT]
//	crmguard audit extract -tenant T [-client ID] -o FILE -db … -signer FILE -store … -kek FILE
//	crmguard audit sequence -db … -signer FILE -store … -kek FILE [-anchor FILE|DATABASE] [-webhook URL] [-witness 'URL KEY']
//	crmguard audit prune -before TIME -db … -signer FILE -store … -kek FILE
//	crmguard audit hold [-tenant T -id ID -reason CODE [-release]] -db … -signer FILE -store … -kek FILE
//	crmguard policy lint FILE|-
//	crmguard policy explain -policy FILE -as u:ID -do ACTION -on KIND [-field F] [-id ID] [-owner ID] [-unit U] [-departments FILE]
//	crmguard policy test FILE
//	crmguard policy what-if -policy FILE [-add ROW …] [-remove ROW …] [-departments FILE]
//	crmguard policy review -policy FILE [-departments FILE] [-from … -to …] PERSON
//	crmguard policy diff OLD NEW
//	crmguard policy matrix -policy FILE
//	crmguard scan FILE|- -db PATH|postgres://… -store PATH|postgres://… -kek FILE
//
// The exit code is 0 if all is well, 1 if it is not, 2 if the command was not
// understood, and 3 if the answer could not be found out. Of a command that changes keys, 0 is
// done, 1 refused, as what was asked is wrong, and 3 not done, or not all of it, as a database or
// key file did not answer or the command was cut off: it may be called again. What judges a
// journal has a code for each verdict, from 10 on, of which those from 20 on say that somebody
// tampered with it: crmguard help audit verify lists them.
//
// # Security notes
//
// No command prints a key, a passphrase, or a password out of a database's URL. Passphrases come
// from a file that only its owner can read, a terminal that does not show them or a pipe, never
// from the command line or the environment. Only the commands rotate, turn, erase and replay,
// and extract, sequence, prune and hold, write to a database, and only to one that has keys already, of the KEK that they are given. A verifying key and
// a checkpoint come from files that the caller keeps, never from the database that
// they are to judge. What comes out of a database or file is quoted, so that it
// cannot write to the terminal. All other commands leave databases as they are, so that evidence stays.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"
)

// Exit codes.
const (
	good   = 0
	bad    = 1 // the answer is no: refused, broken, full of errors
	misuse = 2
	unable = 3 // there is no answer
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// command is one of the things that the program does.
type command struct {
	name  string // one word or two
	args  string
	about string // for the list, one line
	help  string // below the arguments, one or more lines
	do    func(*call) int
}

func commands() []command {
	return []command{keysCreate, keysList, keysRotate, keysTurn, keysErase, keysReceipt, keysReplay, auditVerify, auditProve, auditCheck, auditTimeline, auditTail, auditExport, auditExtract, auditSequence, auditPrune, auditHold, policyLint, policyExplain, policyTest, policyWhatIf, policyReview, policyDiff, policyMatrix, scan}
}

// call is one run of a command.
type call struct {
	context.Context
	command
	flags    *flag.FlagSet
	argv     []string
	in       io.Reader
	out, err io.Writer
}

func run(ctx context.Context, args []string, in io.Reader, out, err io.Writer) int {
	help := len(args) > 0 && slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0])
	if help {
		args = args[1:]
	}
	for _, c := range commands() {
		if words := strings.Fields(c.name); len(args) >= len(words) && slices.Equal(args[:len(words)], words) {
			argv := args[len(words):]
			if help {
				argv = []string{"-h"}
			}
			flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
			flags.SetOutput(io.Discard) // parse tells of errors, in one line
			return c.do(&call{Context: ctx, command: c, flags: flags, argv: argv, in: in, out: out, err: err})
		}
	}
	if help && len(args) == 0 {
		overview(out)
		return good
	}
	if len(args) > 0 {
		fmt.Fprintf(err, "crmguard: there is no command %q\n\n", strings.Join(args[:min(2, len(args))], " "))
	}
	overview(err)
	return misuse
}

func overview(w io.Writer) {
	fmt.Fprint(w, "crmguard makes, counts, turns and destroys keys, verifies, proves and shows journals, checks policies and finds what is not sealed.\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  crmguard %-14s %s\n", c.name, c.about)
	}
	fmt.Fprint(w, "\nExit codes: 0 all is well, 1 it is not, 2 not understood, 3 could not be found out or done.\n"+
		"Verdicts about journals have codes of their own: crmguard help audit verify.\n"+
		"More about one: crmguard help COMMAND\n")
}

// parse is parseAny for commands with a number of arguments.
func (c *call) parse(want int) (rest []string, code int, ok bool) {
	rest, code, ok = c.parseAny()
	if ok && len(rest) != want {
		return nil, c.misused("%s; want %d", count(len(rest), "argument"), want), false
	}
	return rest, code, ok
}

// parseAny reads the flags, which may stand before and after the other arguments, and
// returns these. If ok is false the call ends with code.
func (c *call) parseAny() (rest []string, code int, ok bool) {
	for args := c.argv; ; {
		err := c.flags.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			c.usage()
			return nil, good, false
		}
		if err != nil {
			return nil, c.misused("%v", err), false
		}
		if c.flags.NArg() == 0 {
			break
		}
		rest = append(rest, c.flags.Arg(0))
		args = c.flags.Args()[1:]
	}
	return rest, good, true
}

func (c *call) usage() {
	fmt.Fprintf(c.out, "crmguard %s %s\n\n%s\n", c.name, c.args, c.help)
	c.flags.SetOutput(c.out)
	c.flags.PrintDefaults()
}

// misused says what is wrong with the arguments, and where to read on.
func (c *call) misused(format string, args ...any) int {
	fmt.Fprintf(c.err, "crmguard %s: %s\ncrmguard help %s tells how it is called\n", c.name, say(format, args...), c.name)
	return misuse
}

// fail says why a command ends with a code other than good.
func (c *call) fail(code int, format string, args ...any) int {
	fmt.Fprintf(c.err, "crmguard %s: %s\n", c.name, say(format, args...))
	return code
}

// advised is an error with what to do about it, which is ours to say: it gets lines
// of its own, and what comes from elsewhere in it is quoted already.
type advised struct {
	error
	next string
}

func (a advised) Unwrap() error { return a.error }

// say is fmt.Sprintf for texts and errors that may hold what somebody has put into a
// database or file: they are quoted.
func say(format string, args ...any) string {
	next := ""
	for i, arg := range args {
		switch arg := arg.(type) {
		case string:
			args[i] = plain(arg)
		case error:
			args[i] = plain(arg.Error())
			if a, ok := errors.AsType[advised](arg); ok {
				next = "\n" + a.next
			}
		}
	}
	return fmt.Sprintf(format, args...) + next
}

// plain quotes what could write to a terminal something else than it says.
func plain(text string) string {
	if text == "" || strings.TrimSpace(text) != text || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}
