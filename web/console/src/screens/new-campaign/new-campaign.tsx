// Make an update in three steps: which firmware, which devices, look again and start.
import { Button, Stepper } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link, useSearchParams } from "react-router";
import { listArtifacts } from "../../api/calls";
import { useMay } from "../../api/session";
import type { Timeouts } from "../../api/shapes";
import { Empty, Failure, Lines } from "../../parts/states";
import { clip } from "../../text/clip";
import { count } from "../../text/numbers";
import { PickArtifact } from "./pick-artifact";
import { PickDevices } from "./pick-devices";
import { Review } from "./review";

export default function NewCampaign() {
  const [params] = useSearchParams();
  const mayAct = useMay("operator");
  const [artifactId, setArtifactId] = useState(params.get("artifact") ?? "");
  const [picked, setPicked] = useState<ReadonlySet<string>>(new Set(params.getAll("device")));
  const [step, setStep] = useState(artifactId ? 1 : 0);
  // Kept here: what was entered in the last step survives a look back.
  const [name, setName] = useState("");
  const [timeouts, setTimeouts] = useState<Partial<Timeouts>>({});
  const artifacts = useQuery({
    queryKey: ["artifacts", "list", "", "wizard"],
    queryFn: () => listArtifacts({ limit: 500 }),
  });
  const artifact = artifacts.data?.items.find(({ id }) => id === artifactId);
  // An address may name a firmware that is gone.
  const current = artifact ? step : 0;
  if (!mayAct)
    return (
      <Empty
        title="Your role only looks"
        action={
          <Button component={Link} to="/campaigns">
            All updates
          </Button>
        }
      >
        Updating devices needs the role operator.
      </Empty>
    );
  return (
    <>
      <div className="head">
        <h1>Update devices</h1>
      </div>
      <Stepper
        active={current}
        onStepClick={setStep}
        size="xs"
        mb="md"
        allowNextStepsSelect={false}
        maw={760}
        iconSize={26}
      >
        <Stepper.Step label="Firmware" description={artifact ? clip(artifact.version, 20) : undefined} />
        <Stepper.Step label="Devices" description={picked.size ? `${count(picked.size)} picked` : undefined} />
        <Stepper.Step label="Review" />
      </Stepper>
      {artifacts.isError && !artifacts.data ? (
        <Failure
          what="The firmware could not be loaded"
          error={artifacts.error}
          retry={() => void artifacts.refetch()}
        />
      ) : !artifacts.data ? (
        <Lines />
      ) : artifacts.data.items.length === 0 ? (
        <Empty
          title="There is no firmware yet"
          action={
            <Button component={Link} to="/firmware?upload=1">
              Upload firmware
            </Button>
          }
        >
          An update needs an image to send.
        </Empty>
      ) : current === 0 || !artifact ? (
        <PickArtifact
          items={artifacts.data.items}
          pick={(id) => {
            setArtifactId(id);
            setStep(1);
          }}
        />
      ) : current === 1 ? (
        <PickDevices picked={picked} onPick={setPicked} back={() => setStep(0)} next={() => setStep(2)} />
      ) : (
        <Review
          artifact={artifact}
          picked={picked}
          name={name}
          setName={setName}
          timeouts={timeouts}
          setTimeouts={setTimeouts}
          back={() => setStep(1)}
        />
      )}
    </>
  );
}
