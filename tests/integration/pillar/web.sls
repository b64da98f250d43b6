web: {version: '1', status: 200}
