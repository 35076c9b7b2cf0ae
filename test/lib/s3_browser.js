// What a browser does with the S3 broker: asks what is missing, has parts signed, sends several
// at a time to S3 in random order, and tells the broker their ETags.  Some requests break off, some
// are repeated.
//
//     node s3_browser.js SEED BROKER_PORT,BROKER_PORT UPLOAD_ID FILE
//
// Prints "confirmed N" as parts are confirmed, and at last "complete KEY".

const crypto = require('crypto')
const fs = require('fs')

const [seed, ports, id, file] = process.argv.slice(2)
const brokers = ports.split(',')
const content = fs.readFileSync(file)
let state = Number(seed)
let confirmed = 0

// A number from 0 to n - 1
function random (n) {
  state = (state * 1103515245 + 12345) % 2147483648
  return Math.floor(state / 65536) % n
}

// Asks one of the brokers, until one answers.
async function ask (method, path, body) {
  for (let attempt = 0; attempt < 3000; attempt++) {
    try {
      const answer = await fetch(`http://127.0.0.1:${brokers[random(brokers.length)]}${path}`,
        { method, body: body && JSON.stringify(body), headers: { 'Content-Type': 'application/json' } })
      const text = await answer.json()
      if (answer.ok) return text
      if (answer.status < 500 && answer.status !== 423) throw new Error(`${method} ${path}: ${answer.status} ${text.error}`)
    } catch (error) {
      if (!(error instanceof TypeError)) throw error // of fetch: the connection has failed
    }
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  throw new Error('no broker answers')
}

async function send (number, partSize) {
  const body = content.subarray((number - 1) * partSize, number * partSize)
  const { urls: [url] } = await ask('POST', `/uploads/${id}/sign`, { parts: [number] })
  const answer = await fetch(url, { method: 'PUT', body })
  if (!answer.ok) throw new Error(`S3: ${answer.status}`)
  if (random(5) === 0) return // the browser is closed before it tells the broker
  const sha256 = crypto.createHash('sha256').update(body).digest('hex')
  for (let repeat = random(2); repeat >= 0; repeat--) {
    await ask('PUT', `/uploads/${id}/parts/${number}`, { etag: answer.headers.get('etag'), sha256 })
  }
  console.log(`confirmed ${++confirmed}`)
}

async function main () {
  let left = await ask('POST', '/uploads', { id, name: file, size: content.length, type: 'video/mp4' })
  left = await ask('POST', '/uploads', { id, name: file, size: content.length, type: 'video/mp4' })
  while (left.missing.length > 0) {
    const numbers = left.missing.map(number => [random(1000), number]).sort((a, b) => a[0] - b[0]).map(pair => pair[1])
    await Promise.all([0, 1, 2, 3].map(async worker => {
      for (let i = worker; i < numbers.length; i += 4) await send(numbers[i], left.part_size)
    }))
    left = await ask('GET', `/uploads/${id}`)
  }
  const results = await Promise.all([1, 2].map(() => ask('POST', `/uploads/${id}/complete`)))
  console.log(`complete ${results[0].key}`)
}

main().catch(error => { console.log(`failed ${error.stack}`); process.exit(1) })
