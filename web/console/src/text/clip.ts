// Text from devices is hostile: it is cut to a length, and characters that would change how the page reads
// (control characters, changes of direction, zero-width ones) are made visible. Pure.

const unseen = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

export function visible(text: string): string {
  return text.replace(unseen, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

export function clip(text: string, limit: number): string {
  const shown = visible(text.length > limit * 2 ? text.slice(0, limit * 2) : text);
  return shown.length <= limit ? shown : `${shown.slice(0, limit - 1)}…`;
}

/** Cut in the middle: both ends of an id say something. */
export function middle(text: string, limit: number): string {
  const shown = visible(text);
  if (shown.length <= limit) return shown;
  const head = Math.ceil((limit - 1) / 2);
  return `${shown.slice(0, head)}…${shown.slice(shown.length - (limit - 1 - head))}`;
}
