package audit

// Queued is how many entries wait for the committer.
func Queued(l *Log) int { return len(l.queue) }
