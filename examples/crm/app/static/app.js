// A revealed value counts down and hides. Without JavaScript the page's own
// refresh leaves after the same time.
"use strict";
(() => {
	const value = document.querySelector("[data-hide-after]");
	if (!value) return;
	const left = document.querySelector("[data-countdown]");
	const end = Date.now() + Number(value.dataset.hideAfter) * 1000;
	const hide = () => { value.textContent = "hidden again"; value.className = "masked"; };
	const tick = () => {
		const seconds = Math.max(0, Math.ceil((end - Date.now()) / 1000));
		if (left) left.textContent = seconds;
		if (seconds > 0) return;
		clearInterval(timer);
		hide();
		location.replace(value.dataset.back);
	};
	const timer = setInterval(tick, 500);
	// Neither the back button nor a restored tab shows it again.
	addEventListener("pagehide", hide);
	tick();
})();
