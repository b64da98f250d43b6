it says what the pillar says:
  module_and_function: file.contains
  args: [/etc/tested, {{ pillar['tested']['says'] }}]
  assertion: assertTrue

it is not wrong:
  module_and_function: file.contains
  args: [/etc/tested, wrong]
  assertion: assertFalse
