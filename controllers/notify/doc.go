// Package notify puts Events on objects: at a bounded pace, in turns among their sources
// ([EventQueue]), in notes that the API server takes ([NodeEvents], [Clamp]), and from few of the
// nodes where all would say the same ([IsReporterAmong]). Its callers decide what to report.
package notify
