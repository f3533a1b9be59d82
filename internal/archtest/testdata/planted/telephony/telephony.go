package telephony

import (
	_ "net"
)
