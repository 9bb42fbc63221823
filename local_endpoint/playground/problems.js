// A problem at a field: seen, and told by screen readers with the control.

/** Shows what is wrong with a control; "" for nothing. */
export function showProblem(control, problem, text) {
  problem.textContent = text;
  problem.hidden = !text;
  if (text) control.setAttribute("aria-invalid", "true");
  else control.removeAttribute("aria-invalid");
}
