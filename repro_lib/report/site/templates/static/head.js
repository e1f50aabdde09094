// Before anything is painted: code is folded where a button can unfold it, and light or dark is as chosen on another page.
document.documentElement.classList.add("code-hidden");
try { document.documentElement.dataset.theme = localStorage.getItem("theme") ?? ""; } catch { /* no storage: the system's */ }
