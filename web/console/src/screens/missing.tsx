import { Button } from "@mantine/core";
import { Link } from "react-router";
import { Empty } from "../parts/states";

export default function Missing() {
  return (
    <Empty
      title="There is no such page"
      action={
        <Button component={Link} to="/">
          Go to the overview
        </Button>
      }
    >
      The address may be mistyped, or what it showed was deleted.
    </Empty>
  );
}
