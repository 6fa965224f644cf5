"""HTTP proxies: hooks that ask a back end, in the form of Centrifugo's HTTP proxy (docs/proxies.md)."""
