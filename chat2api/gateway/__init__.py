"""From a public operation to the upstream that serves it."""
