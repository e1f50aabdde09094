// In the head, before anything is painted: the reader's choice of light or dark, if one was made on another page.
try { document.documentElement.dataset.theme = localStorage.getItem("theme") ?? ""; } catch { /* no storage: the system's */ }
