package encrypt

// Matcher looks at values as a search does.
type Matcher struct{ *matcher }

// NewMatcher reads a query.
func NewMatcher(query string) Matcher { return Matcher{newMatcher(query)} }

// Match folds values and looks at them.
func (m Matcher) Match(values ...string) bool {
	var room [haystackRoom]byte
	haystack := room[:0]
	for _, value := range values {
		haystack = append(fold(haystack, value), 0)
	}
	return !m.empty() && m.match(haystack)
}

// WaitForPoll waits until polls in the background have ended.
func (k *Keyring) WaitForPoll() { k.background.Wait() }

// Cached says of how many scopes keys are in memory.
func (k *Keyring) Cached() int { return k.cache.len() }
