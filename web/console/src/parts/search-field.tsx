// A field that filters the list below it, a moment after the last key.
import { TextInput } from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { useEffect, useState } from "react";
import { Icon } from "./icons";

export function SearchField({
  value,
  onChange,
  placeholder = "Id or name",
  width = 240,
}: {
  value: string;
  onChange: (value: string) => void;
  placeholder?: string;
  width?: number;
}) {
  const [text, setText] = useState(value);
  const say = useDebouncedCallback(onChange, 250);
  // The URL may change by itself (back button, a link): the field follows unless somebody types in it.
  useEffect(() => setText((now) => (now.trim() === value ? now : value)), [value]);
  return (
    <TextInput
      size="xs"
      w={width}
      style={{ flex: `0 1 ${width}px` }}
      placeholder={placeholder}
      aria-label={`Search: ${placeholder}`}
      value={text}
      maxLength={128}
      data-page-search
      data-testid="search"
      leftSection={<Icon name="search" size={13} />}
      onChange={(event) => {
        setText(event.currentTarget.value);
        say(event.currentTarget.value.trim());
      }}
    />
  );
}
