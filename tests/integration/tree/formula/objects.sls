#!pyobjects

File.managed('/etc/formula.objects', contents='objects')
