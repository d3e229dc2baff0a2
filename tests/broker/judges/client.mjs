// The npm client mqtt as a judge: one JSON line in, one out. Payloads travel as base64.
//   {"id": 1, "op": "connect", "name": "a", "url": "ws://…", "options": {…}}   ->  {"id": 1, "sessionPresent": true}
// Likewise subscribe, publish, next, cut (no DISCONNECT), end; what fails answers {"id", "error"}.
import { createInterface } from 'node:readline'
import mqtt from 'mqtt'

const clients = new Map()

class Client {
  #arrived = []
  #waiting = []

  async connect ({ url, options }) {
    if (options.will) options.will.payload = Buffer.from(options.will.payload, 'base64')
    if (options.properties?.userProperties) options.properties.userProperties = { ...options.properties.userProperties }
    this.mqtt = mqtt.connect(url, { ...options, reconnectPeriod: 0, connectTimeout: 5000 })
    this.mqtt.on('message', (topic, payload, { qos, retain, properties }) => {
      const message = { topic, payload: payload.toString('base64'), qos, retain, properties }
      const next = this.#waiting.shift()
      if (next) next(message)
      else this.#arrived.push(message)
    })
    const [connack] = await new Promise((resolve, reject) => {
      this.mqtt.once('connect', (...all) => resolve(all))
      this.mqtt.once('error', reject)
      this.mqtt.once('close', () => reject(new Error('closed')))
    })
    this.mqtt.on('error', () => {})
    return { sessionPresent: connack.sessionPresent, properties: connack.properties }
  }

  async subscribe ({ topic, options }) {
    return { granted: (await this.mqtt.subscribeAsync(topic, options)).map(({ qos }) => qos) }
  }

  async publish ({ topic, payload, options }) {
    await this.mqtt.publishAsync(topic, Buffer.from(payload, 'base64'), options)
    return {}
  }

  next () {
    return this.#arrived.shift() ?? new Promise((resolve) => this.#waiting.push(resolve))
  }

  cut () {
    this.mqtt.stream.destroy()
    return {}
  }

  async end () {
    await this.mqtt.endAsync()
    return {}
  }
}

async function answer ({ id, op, name, ...arguments_ }) {
  let reply
  try {
    if (op === 'connect') clients.set(name, new Client())
    reply = await clients.get(name)[op](arguments_)
  } catch (error) {
    reply = { error: error.message, code: error.code }
  }
  const bytes = (key, value) => (value?.type === 'Buffer' ? Buffer.from(value.data).toString('base64') : value)
  process.stdout.write(JSON.stringify({ id, ...reply }, bytes) + '\n')
}

createInterface({ input: process.stdin }).on('line', (line) => answer(JSON.parse(line))).on('close', () => process.exit())
