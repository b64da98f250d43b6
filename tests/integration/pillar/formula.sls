formula:
  greeting: from the pillar
  lookup:
    root: /srv/formula
  users:
    ada: {uid: 1501, groups: [www-data], keys: ['ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPgJmO4LXf1Hh3rAJ3Tf0dWUpDSWGzyAKcYkrc9OrAsW ada']}
