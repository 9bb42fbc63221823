// What the page keeps in this browser as text. Where that is forbidden, or has no room, the page goes on and forgets.

export const TAB = "sessionStorage";
export const BROWSER = "localStorage";

/** The text that is kept under a name, or null. */
export function recallText(place, name) {
  try {
    return window[place].getItem(name);
  } catch {
    return null;
  }
}

export function keepText(place, name, text) {
  try {
    window[place].setItem(name, text);
  } catch {
    // The next visit asks again.
  }
}

export function forgetText(place, name) {
  try {
    window[place].removeItem(name);
  } catch {
    // Nothing is kept there.
  }
}
