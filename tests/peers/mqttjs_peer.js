// An MQTT.js client over WebSocket for the end-to-end tests; PARLOR_PEERS/node_modules must be in NODE_PATH.
//
// node mqttjs_peer.js URL USER PASSWORD VERSION CLIENT_ID PERSISTENT sub TOPIC QOS
// node mqttjs_peer.js URL USER PASSWORD VERSION CLIENT_ID PERSISTENT pub TOPIC QOS PREFIX COUNT
//
// VERSION is 4 or 5; PERSISTENT is 1 or 0. Prints one line an event: `ready`, `got TOPIC QOS RETAIN PAYLOAD`, `sent`.
'use strict'
const mqtt = require('mqtt')
const [url, username, password, version, clientId, persistent, role, topic, qosText, prefix, count] =
  process.argv.slice(2)
const qos = Number(qosText)
const keep = persistent === '1'
const say = (...words) => process.stdout.write(words.join(' ') + '\n')

const options = {
  username,
  password,
  clientId,
  protocolVersion: Number(version),
  clean: !keep,
  // It does not come back by itself: the tests decide when.
  reconnectPeriod: 0,
  connectTimeout: 10000
}
if (version === '5') options.properties = { sessionExpiryInterval: keep ? 3600 : 0 }
const client = mqtt.connect(url, options)
client.on('error', (error) => {
  say('refused', error.message)
  process.exit(1)
})
client.on('close', () => {
  if (role === 'sub') process.exit(0)
})
client.on('message', (name, payload, packet) => {
  say('got', name, packet.qos, packet.retain ? 1 : 0, payload.toString())
})
client.on('connect', async () => {
  if (role === 'sub') {
    const granted = await client.subscribeAsync(topic, { qos })
    if (granted.some((g) => g.qos !== qos)) {
      say('refused', JSON.stringify(granted))
      process.exit(1)
    }
    say('ready')
    return
  }
  for (let number = 0; number < Number(count); number++) {
    await client.publishAsync(topic, `${prefix} ${qos} ${number}`, { qos })
  }
  await client.endAsync()
  say('sent')
})
