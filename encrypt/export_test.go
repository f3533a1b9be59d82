package encrypt

// WaitForPoll waits until polls in the background have ended.
func (k *Keyring) WaitForPoll() { k.background.Wait() }
