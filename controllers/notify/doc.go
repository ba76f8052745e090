// Package notify puts Events on objects: at a bounded pace, in turns of those that cause them
// ([EventQueue]), in notes that the API server takes ([NodeEvents], [Clamp]), and from few of the
// nodes where all would say the same ([TellsAmong]). What is to be told is its callers' business.
package notify
