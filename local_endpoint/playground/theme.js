// Light and dark: as the system has it, unless the switch says otherwise. The choice is kept in this browser.

const KEY = "playground-theme";
const THEMES = ["auto", "light", "dark"];

/** Makes a switch of this button. */
export function wireTheme(button) {
  let theme = THEMES.includes(localStorage.getItem(KEY)) ? localStorage.getItem(KEY) : "auto";
  const show = () => {
    document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  };
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    localStorage.setItem(KEY, theme);
    show();
  });
  show();
}
