package encrypt_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/encrypt"
)

func ExampleLeakOf() {
	for _, index := range []string{"phone", "last4", "domain", "email"} {
		leak, err := encrypt.LeakOf(index, 100_000)
		if err != nil {
			fmt.Println(err)
		}
		fmt.Println(leak)
	}
	// Output:
	// index phone of 100 000 rows: the table shows which rows are equal, nearly all differ (at most 16.6 bits a row); who also has the key tests all 1 000 000 000 values in 83 seconds
	// index last4 of 100 000 rows: the table shows which rows are equal, about 11 each (at most 13.3 bits a row); who also has the key tests all 10 000 values in under a millisecond
	// index domain of 100 000 rows: the table shows which rows are equal (at most 16.6 bits a row); frequent values are recognised by their frequency; who also has the key tests all 362 400 000 values in 30 seconds
	// index email of 100 000 rows: the table shows which rows are equal (at most 16.6 bits a row); who also has the key can test whatever list of values they have, 12 million a second on a core
}

func TestLeak(t *testing.T) {
	_, err := encrypt.LeakOf("soundex", 10)
	require.Error(t, err)
	phones, err := encrypt.LeakOf("phone", 1_000_000)
	require.NoError(t, err)
	require.Equal(t, 83*time.Second, phones.Guess)
	require.False(t, phones.Hides())
	for _, rows := range []int{0, 1, 2, 30_000, 1_000_000} {
		for _, index := range []string{"phone", "last4", "domain", "email", "exact"} {
			leak, err := encrypt.LeakOf(index, rows)
			require.NoError(t, err)
			require.LessOrEqual(t, leak.Bits, math.Log2(float64(max(rows, 1)))+1e-9, "nobody learns more than which row it is")
			require.GreaterOrEqual(t, leak.Bits, 0.0)
			require.NotEmpty(t, leak.String())
		}
	}
}

// TestLeakIsWhatRowsShow draws rows and counts what the formulas expect.
func TestLeakIsWhatRowsShow(t *testing.T) {
	const rows, values = 30_000, 10_000
	random := rand.New(rand.NewPCG(1, 2))
	seen := make(map[int]int)
	for range rows {
		seen[random.IntN(values)]++
	}
	sharing := 0
	for _, n := range seen {
		sharing += n * n // each of n rows shares with n, itself included
	}
	leak, err := encrypt.LeakOf("last4", rows)
	require.NoError(t, err)
	require.InDelta(t, float64(sharing)/rows, leak.RowsPerValue, 0.1)
	require.InDelta(t, math.Log2(float64(len(seen))), leak.Bits, 0.01)
	require.True(t, leak.Hides())
}
