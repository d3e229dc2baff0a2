// The npm codec mqtt-packet as a judge: one JSON line in, one out. Bytes travel as {"$hex": "..."}.
//   {"decode": "hex", "protocol": 5}           ->  {"packets": [...], "left": bytes not used, "error"?}
//   {"encode": {"cmd": ...}, "protocol": 5}    ->  {"wire": "hex"} or {"error"}
import { createInterface } from 'node:readline'
import mqtt from 'mqtt-packet'

const bytes = (key, value) => (typeof value?.$hex === 'string' ? Buffer.from(value.$hex, 'hex') : value)
const hex = (key, value) => (value?.type === 'Buffer' ? { $hex: Buffer.from(value.data).toString('hex') } : value)

function decode (wire, protocolVersion) {
  const packets = []
  let error
  const parser = mqtt.parser({ protocolVersion })
  parser.on('packet', (packet) => packets.push(packet))
  parser.on('error', (reason) => { error ??= reason.message })
  const left = parser.parse(Buffer.from(wire, 'hex'))
  return { packets: error ? [] : packets, left, error }
}

function answer ({ decode: wire, encode: packet, protocol }) {
  try {
    if (wire !== undefined) return decode(wire, protocol)
    return { wire: mqtt.generate(packet, { protocolVersion: protocol }).toString('hex') }
  } catch (error) {
    return { error: error.message }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(answer(JSON.parse(line, bytes)), hex) + '\n')
}
