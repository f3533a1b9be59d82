package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUnformatted(t *testing.T) {
	files := map[string]string{
		"good.go":             "package a\n",
		"testdata/planted.go": "package  a\n",
		".hidden/draft.go":    "package  a\n",
	}
	require.NoError(t, unformatted(repository(t, files)))
	files["sub/bad.go"] = "package  a\n"
	files["broken.go"] = "package\n"
	err := unformatted(repository(t, files))
	require.ErrorContains(t, err, "bad.go: not formatted")
	require.ErrorContains(t, err, "broken.go:")
	require.NotContains(t, err.Error(), "good.go")
}

func TestLinterVersion(t *testing.T) {
	for name, c := range map[string]struct{ mod, version, problem string }{
		"pinned":    {"require " + linterModule + " v2.15.0\n", "v2.15.0", ""},
		"missing":   {"require example.test/other v1.0.0\n", "", "does not require " + linterModule},
		"no module": {"…\n", "", "go mod edit"},
	} {
		t.Run(name, func(t *testing.T) {
			root := repository(t, map[string]string{toolsModule + "/go.mod": "module tools\n\n" + c.mod})
			d := &dev{root: root, out: terminal{t.Output()}, err: terminal{t.Output()}}
			version, err := d.linterVersion(t.Context())
			if c.problem != "" {
				require.ErrorContains(t, err, c.problem)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.version, version)
		})
	}
}
