tested: {says: fine}
