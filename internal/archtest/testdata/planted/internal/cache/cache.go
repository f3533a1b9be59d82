package cache

import (
	_ "sync"
)
