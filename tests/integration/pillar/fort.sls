fort: {authorized: no key yet}
