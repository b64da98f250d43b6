vault: {version: '1', db: {user: vault, password: 'correct-horse-1'}, leaks: false, written: [], slow: 0, fails: false}
