package encrypt

// WaitForPoll waits until polls in the background have ended.
func (k *Keyring) WaitForPoll() { k.background.Wait() }

// Cached says of how many scopes keys are in memory.
func (k *Keyring) Cached() int { return k.cache.len() }
